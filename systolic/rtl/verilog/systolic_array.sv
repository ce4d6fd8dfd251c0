// ROWS x COLS PEs, weight stationary. Activations and control move right, weights and psums down.
//
// Rows take the contraction (k), columns the outputs (n). The ports stand as the edge consumes
// them: row r's west port must be fed r cycles late and column c's north port c cycles late (see
// skew.sv), since PE (r, c) does at cycle t what PE (0, 0) did at cycle t - r - c. Port p of a
// vector of 8-bit ports is [8*p +: 8].

`default_nettype none

module systolic_array #(
    parameter int ROWS              = 4,
    parameter int COLS              = 4,
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1
) (
    input  wire               clk,
    input  wire               reset,
    input  wire [8*ROWS-1:0]  west_activation,
    input  wire [ROWS-1:0]    west_shift,
    input  wire [ROWS-1:0]    west_swap,
    input  wire [8*COLS-1:0]  north_weight,
    input  wire [32*COLS-1:0] north_psum,
    output wire [32*COLS-1:0] south_psum
);
    for (genvar r = 0; r < ROWS; r++) begin : row
        for (genvar c = 0; c < COLS; c++) begin : col
            wire [7:0]  arriving_activation, activation;
            wire        arriving_shift, shift;
            wire        arriving_swap, swap;
            wire [7:0]  arriving_weight, weight_pass;
            wire [31:0] arriving_psum, psum;

            if (c == 0) begin : west
                assign arriving_activation = west_activation[8*r+:8];
                assign arriving_shift      = west_shift[r];
                assign arriving_swap       = west_swap[r];
            end else begin : left
                assign arriving_activation = row[r].col[c-1].activation;
                assign arriving_shift      = row[r].col[c-1].shift;
                assign arriving_swap       = row[r].col[c-1].swap;
            end

            if (r == 0) begin : north
                assign arriving_weight = north_weight[8*c+:8];
                assign arriving_psum   = north_psum[32*c+:32];
            end else begin : above
                assign arriving_weight = row[r-1].col[c].weight_pass;
                assign arriving_psum   = row[r-1].col[c].psum;
            end

            pe #(
                .ACTIVATION_SIGNED(ACTIVATION_SIGNED),
                .WEIGHT_SIGNED    (WEIGHT_SIGNED)
            ) pe (
                .clk,
                .reset,
                .arriving_activation,
                .arriving_shift,
                .arriving_swap,
                .arriving_weight,
                .arriving_psum,
                .activation,
                .shift,
                .swap,
                .weight_pass,
                .psum
            );

            // A column's last psum is its result. Nothing stands below to take its weight_pass,
            // and nothing to the right of the last column.
            if (r == ROWS - 1) begin : south
                assign south_psum[32*c+:32] = psum;
                wire unused = &{1'b0, weight_pass};
            end
            if (c == COLS - 1) begin : east
                wire unused = &{1'b0, activation, shift, swap};
            end
        end
    end
endmodule

`default_nettype wire
