// Package price says what the answers of language models cost.
package price

// Provider returns who serves an API, by its URL, or empty.
func Provider(string) string { return "" }
