"""One store per noun; the SQL stands in the method that runs it."""
