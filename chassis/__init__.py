"""What a service is made of: declaration, application, requests, problems, health, settings, migrations and seeds."""
