"""What can be bought: modules, packages, commercial add-ons and their prices."""
