"""Archives: unpacked under guards into a private folder, where the models in them are found by content."""
