"""The sections of the panel, one class each. They get the widgets of the .ui file and what they work on."""
