"""Training on votes: Dirichlet-multinomial loss, Lightning module, fit."""
