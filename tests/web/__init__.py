"""Tests of the browser's door, on a real server, over a real socket, in a real browser."""
