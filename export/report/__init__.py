"""The page and the JSON document that tell all about a bundle, or about several side by side."""
