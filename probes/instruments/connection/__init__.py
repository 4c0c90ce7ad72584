"""The probe of what lies between two networks."""
