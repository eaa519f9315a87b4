"""HTTP by the RFCs, as functions on values. Imports nothing but the standard library."""
