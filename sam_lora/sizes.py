"""Sizes of images, given as one side or as height and width."""


def pair(size: int | tuple[int, ...] | list[int]) -> tuple[int, int]:
    """Return (H, W) of one number, or of one or two.

    Args:
        size: Pixels.

    Raises:
        ValueError: If there are more than two numbers, or none.
    """
    numbers = (size,) if isinstance(size, int) else tuple(int(number) for number in size)
    if len(numbers) not in (1, 2):
        raise ValueError(f"image_size must be one number or (H, W), got {size}")
    return numbers[0], numbers[-1]


def multiples_of(unit: int, name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return a size after a check.

    Args:
        unit: What both numbers must be multiples of.
        name: Name of the argument, for the message.
        size: (H, W) in pixels.

    Raises:
        ValueError: If they are not, or not positive.
    """
    if any(number < unit or number % unit for number in size):
        good = tuple(max(unit, round(number / unit) * unit) for number in size)
        raise ValueError(f"{name} (H, W) must be multiples of {unit}, got {size}; take {good}")
    return size
