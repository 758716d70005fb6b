"""SAM-family networks and parameter-efficient adapters."""
