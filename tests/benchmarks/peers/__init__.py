"""What people run instead, each with the token of the contract made by PyJWT."""
