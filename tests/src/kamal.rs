//! Real Kamal on a fleet.
