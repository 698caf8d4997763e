"""One module a page, and the sums and findings that pages share."""
