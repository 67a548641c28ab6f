"""Pure strings: from plain values to text, HTML and SVG. No network, no state, no clock that a test can't set."""
