"""What bundle configurations name by `_target_`: handlers, prediction writer, option check."""
