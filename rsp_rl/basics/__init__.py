"""What every room needs: errors that a user can mend, files that are whole or not there."""
