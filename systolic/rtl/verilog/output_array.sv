// ROWS x COLS PEs, output stationary. Activations and control move right, weights and finished sums down.
//
// Rows take rows of x (m), columns the outputs (n). The ports stand as the edge consumes them: row
// r's west port must be fed r cycles late and column c's north port c cycles late (see skew.sv).
// Port p of a vector of 8-bit ports is [8*p +: 8].

`default_nettype none

module output_array #(
    parameter int ROWS              = 4,
    parameter int COLS              = 4,
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1
) (
    input  wire               clk,
    input  wire               reset,
    input  wire [8*ROWS-1:0]  west_activation,
    input  wire [ROWS-1:0]    west_swap,
    input  wire [ROWS-1:0]    west_drain,
    input  wire [8*COLS-1:0]  north_weight,
    input  wire [32*COLS-1:0] north_out,
    output wire [32*COLS-1:0] south_out
);
    for (genvar r = 0; r < ROWS; r++) begin : row
        for (genvar c = 0; c < COLS; c++) begin : col
            wire [7:0]  arriving_activation, activation;
            wire        arriving_swap, swap;
            wire        arriving_drain, drain;
            wire [7:0]  arriving_weight, weight;
            wire [31:0] arriving_out, out_pass, out;

            if (c == 0) begin : west
                assign arriving_activation = west_activation[8*r+:8];
                assign arriving_swap       = west_swap[r];
                assign arriving_drain      = west_drain[r];
            end else begin : left
                assign arriving_activation = row[r].col[c-1].activation;
                assign arriving_swap       = row[r].col[c-1].swap;
                assign arriving_drain      = row[r].col[c-1].drain;
            end

            if (r == 0) begin : north
                assign arriving_weight = north_weight[8*c+:8];
                assign arriving_out    = north_out[32*c+:32];
            end else begin : above
                assign arriving_weight = row[r-1].col[c].weight;
                assign arriving_out    = row[r-1].col[c].out_pass;
            end

            output_pe #(
                .ACTIVATION_SIGNED(ACTIVATION_SIGNED),
                .WEIGHT_SIGNED    (WEIGHT_SIGNED)
            ) pe (
                .clk,
                .reset,
                .arriving_activation,
                .arriving_swap,
                .arriving_drain,
                .arriving_weight,
                .arriving_out,
                .activation,
                .swap,
                .drain,
                .weight,
                .out_pass,
                .out
            );

            // What leaves a column is the bottom row's out. Nothing stands below to take its weight
            // and out_pass, and nothing to the right of the last column.
            if (r == ROWS - 1) begin : south
                assign south_out[32*c+:32] = out;
                wire unused = &{1'b0, weight, out_pass};
            end else begin : upper
                wire unused = &{1'b0, out};
            end
            if (c == COLS - 1) begin : east
                wire unused = &{1'b0, activation, swap, drain};
            end
        end
    end
endmodule

`default_nettype wire
