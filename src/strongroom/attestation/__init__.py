"""Quotes, collateral and their verification; needs no C part and no VM."""
