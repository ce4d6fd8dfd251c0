// The whole, output stationary: controller, skewed ports, array, memory for the sums.
//
// x and w stand in memories outside that answer an address in the same cycle, a column of x and a row
// of w a word: PE row r's activation is x_data[8*r +: 8], PE column c's weight w_data[8*c +: 8]. What
// stands in a word beyond the fold's m and n does not matter. While nothing is due a port carries 0.
//
// by_hand puts the hand_* values on the ports in place of the controller's, already skewed, so
// that any port values can be tried. The north out port is always driven from outside.

`default_nettype none

module output_unit #(
    parameter int ROWS              = 4,
    parameter int COLS              = 4,
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1,
    parameter bit DOUBLE_BUFFERED   = 1'b1
) (
    input  wire               clk,
    input  wire               reset,
    // The next fold; see output_controller.sv.
    input  wire               fold_valid,
    output wire               fold_ready,
    input  wire [15:0]        fold_m,
    input  wire [15:0]        fold_k,
    input  wire [15:0]        fold_n,
    input  wire [15:0]        fold_x_address,
    input  wire [15:0]        fold_w_address,
    input  wire               fold_half,
    // Memories.
    output wire [15:0]        x_address,
    input  wire [8*ROWS-1:0]  x_data,
    output wire [15:0]        w_address,
    input  wire [8*COLS-1:0]  w_data,
    // Sums of a fold: a row of a half of the accumulators, in the same cycle.
    input  wire [15:0]        read_row,
    input  wire               read_half,
    output wire [32*COLS-1:0] read_sums,
    // Ports by hand.
    input  wire               by_hand,
    input  wire [8*ROWS-1:0]  hand_activation,
    input  wire [ROWS-1:0]    hand_swap,
    input  wire [ROWS-1:0]    hand_drain,
    input  wire [8*COLS-1:0]  hand_weight,
    input  wire [32*COLS-1:0] north_out,
    output wire [32*COLS-1:0] south_out,
    output wire [31:0]        cycle,
    output wire [31:0]        cycles
);
    wire        swap, drain, read, write, write_half, last_column;
    wire [15:0] x_rows, w_cols, write_row, write_cols;

    output_controller #(
        .ROWS           (ROWS),
        .COLS           (COLS),
        .DOUBLE_BUFFERED(DOUBLE_BUFFERED)
    ) controller (
        .clk,
        .reset,
        .fold_valid,
        .fold_ready,
        .fold_m,
        .fold_k,
        .fold_n,
        .fold_x_address,
        .fold_w_address,
        .fold_half,
        .swap,
        .drain,
        .read,
        .x_address,
        .x_rows,
        .w_address,
        .w_cols,
        .write,
        .write_row,
        .write_cols,
        .write_half,
        .last_column,
        .cycle,
        .cycles
    );

    // West: activation and control of a row travel together, so one delay line serves both.
    wire [10*ROWS-1:0] west_local, west;
    wire [8*ROWS-1:0]  west_activation;
    wire [ROWS-1:0]    west_swap, west_drain;

    for (genvar r = 0; r < ROWS; r++) begin : row_port
        wire [7:0] moving = read && r < 32'(x_rows) ? x_data[8*r+:8] : 8'd0;
        assign west_local[10*r+:10] = {drain, swap, moving};

        assign west_activation[8*r+:8] = by_hand ? hand_activation[8*r+:8] : west[10*r+:8];
        assign west_swap[r]            = by_hand ? hand_swap[r] : west[10*r+8];
        assign west_drain[r]           = by_hand ? hand_drain[r] : west[10*r+9];
    end

    skew #(
        .LANES(ROWS),
        .WIDTH(10)
    ) west_skew (
        .clk,
        .reset,
        .local_time(west_local),
        .port_time (west)
    );

    // North: weights.
    wire [8*COLS-1:0] north_local, north, north_weight;

    for (genvar c = 0; c < COLS; c++) begin : col_port
        assign north_local[8*c+:8]  = read && c < 32'(w_cols) ? w_data[8*c+:8] : 8'd0;
        assign north_weight[8*c+:8] = by_hand ? hand_weight[8*c+:8] : north[8*c+:8];
    end

    skew #(
        .LANES(COLS),
        .WIDTH(8)
    ) north_skew (
        .clk,
        .reset,
        .local_time(north_local),
        .port_time (north)
    );

    output_array #(
        .ROWS             (ROWS),
        .COLS             (COLS),
        .ACTIVATION_SIGNED(ACTIVATION_SIGNED),
        .WEIGHT_SIGNED    (WEIGHT_SIGNED)
    ) array (
        .clk,
        .reset,
        .west_activation,
        .west_swap,
        .west_drain,
        .north_weight,
        .north_out,
        .south_out
    );

    // Each half takes the sums of one fold, once.
    accumulators #(
        .ROWS    (ROWS),
        .COLS    (COLS),
        .ACC_ROWS(2 * ROWS)
    ) accumulators (
        .clk,
        .reset,
        .write,
        .write_row,
        .write_cols,
        .write_half,
        .write_first(1'b1),
        .psum(south_out),
        .read_row,
        .read_half,
        .read_sums,
        .last_column
    );
endmodule

`default_nettype wire
