"""Board declarations and the build flow."""
