"""The frame every loss stands on: reading, statistics, reduction, registry.  It knows no loss and imports only torch."""
