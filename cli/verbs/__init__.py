"""One file per verb: reads flags, calls the library and the store, prints."""
