"""Tables, figures and the report page, from files alone."""
