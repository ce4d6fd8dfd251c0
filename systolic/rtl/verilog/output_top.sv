// The whole matrix unit with the ports that a design around it needs: folds in, operands read from two
// memories, sums read out. Sums stay in the PEs until their fold ends.
//
// x and w stand in memories outside that answer an address in the same cycle, a column of x and a row
// of w a word: PE row r's activation is x_data[8*r +: 8], PE column c's weight w_data[8*c +: 8].

`default_nettype none

module output_top #(
    parameter int ROWS              = 4,
    parameter int COLS              = 4,
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1,
    parameter bit DOUBLE_BUFFERED   = 1'b1
) (
    input  wire               clk,
    input  wire               reset,
    // The next fold: taken on a cycle with fold_valid and fold_ready.
    input  wire               fold_valid,
    output wire               fold_ready,
    input  wire [15:0]        fold_m,          // rows of the array in use
    input  wire [15:0]        fold_k,          // operands of each PE, at least 1
    input  wire [15:0]        fold_n,          // columns in use
    input  wire [15:0]        fold_x_address,  // where its first column of x stands
    input  wire [15:0]        fold_w_address,  // where its first row of w stands
    input  wire               fold_half,       // half of the memory that takes its sums
    input  wire               fold_first,      // not used: a fold's sums are always whole
    // Memories of operands.
    output wire [15:0]        x_address,
    input  wire [8*ROWS-1:0]  x_data,
    output wire [15:0]        w_address,
    input  wire [8*COLS-1:0]  w_data,
    // Sums: a row of a half of the memory, in the same cycle.
    input  wire [15:0]        read_row,
    input  wire               read_half,
    output wire [32*COLS-1:0] read_sums,
    // What leaves the bottom row of PEs, before the memory.
    output wire [32*COLS-1:0] bottom_sums,
    // Edges since reset, and how many of them it took until the last sum so far was at the bottom.
    output wire [31:0]        cycle,
    output wire [31:0]        cycles
);
    output_unit #(
        .ROWS             (ROWS),
        .COLS             (COLS),
        .ACTIVATION_SIGNED(ACTIVATION_SIGNED),
        .WEIGHT_SIGNED    (WEIGHT_SIGNED),
        .DOUBLE_BUFFERED  (DOUBLE_BUFFERED)
    ) unit (
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
        .x_address,
        .x_data,
        .w_address,
        .w_data,
        .read_row,
        .read_half,
        .read_sums,
        // For tests of the array alone.
        .by_hand        (1'b0),
        .hand_activation({8 * ROWS{1'b0}}),
        .hand_swap      ({ROWS{1'b0}}),
        .hand_drain     ({ROWS{1'b0}}),
        .hand_weight    ({8 * COLS{1'b0}}),
        .north_out      ({32 * COLS{1'b0}}),
        .south_out      (bottom_sums),
        .cycle,
        .cycles
    );

    wire unused = &{1'b0, fold_first};
endmodule

`default_nettype wire
