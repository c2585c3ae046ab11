"""What a production server needs from us. Nothing in here is imported by the application."""
