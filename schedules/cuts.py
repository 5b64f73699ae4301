"""Ways to cut a number of things into pieces."""


def divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def even(total: int, most: int) -> int:
    """The size of at most ``most`` that cuts ``total`` into the fewest pieces, evenly."""
    return -(-total // -(-total // max(1, min(most, total))))
