"""LIKE patterns made from what people type."""


def containing(text: str) -> str:
    """Matches values that contain `text` literally."""
    literal = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"
