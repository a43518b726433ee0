"""What can be told of a found page: where its answer stands, what to quote, what a chat model is given."""
