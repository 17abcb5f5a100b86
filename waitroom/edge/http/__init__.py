"""The edge's HTTP/1.1: authorities, heads, headers, and buffered bodies."""
