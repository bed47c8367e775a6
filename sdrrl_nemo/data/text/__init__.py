"""Languages, words, sentences, message templates and the tokenizer: what is known of text itself."""
