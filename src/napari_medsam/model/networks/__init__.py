"""The networks themselves, as published."""
