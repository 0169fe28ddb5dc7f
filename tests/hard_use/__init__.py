"""Tests under hard use: large libraries, hostile files, kills, leaks, and properties of every stage."""
