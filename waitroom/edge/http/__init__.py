"""HTTP/1.1 as the edge reads and writes it: authorities, heads, headers, and what is held of bodies."""
