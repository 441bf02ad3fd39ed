"""Media: everything that hears, or speaks to a provider."""
