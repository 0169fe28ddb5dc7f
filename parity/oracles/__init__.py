"""What allin1-core is compared with: one module per oracle, each wrapped so that a call keeps no state."""
