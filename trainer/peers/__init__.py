"""The methods that the ReBrain paper compares itself with, written from their papers, and ours.

One file for each method; its docstring says what it keeps and what it leaves out. No code of the
authors was used. `fitting` holds what all share: one step of training, the budget, the cost.
Equal budgets on one machine compare recipes at that budget, not the methods at their best.
"""
