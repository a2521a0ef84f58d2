"""Where many suspects are examined: threads of this process, a share of the work, or the actors of a Ray cluster."""
