"""int8 and int4 weights in blocks, as they are deployed.

formats    Formats of a matrix, and the rule that gives each matrix one.
products   Find the products with stored matrices.
moments    Measure the activations that matrices are multiplied with.
smoothing  Move scales of activations into the operator in front.
rounding   Round a matrix to 4 or 8 bits.
nodes      Write quantized matrices and tables into the graph, in the runtime's own operators.
standard   Write the same in standard operators.
make       Make a variant of a graph from formats.
"""
