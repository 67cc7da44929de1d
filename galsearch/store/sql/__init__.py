"""SQL text: the sandbox it runs in, the macros of a bundle, what visitors may say."""
