"""What holds for the project as a whole: packaging, make, documents, architecture."""
