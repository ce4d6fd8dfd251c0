// A weight-stationary array that takes other times than systolic_array.sv, for maps of signals.
//
// HOP_DOWN and HOP_RIGHT registers stand between a PE and the one below and on its right: none (an adder tree,
// broadcast activations), one, or more. LATENCY more registers follow each psum that is looked at. With HELD, psum
// keeps its value while its PE is not valid. Ports must be skewed as the hops say; a valid bit goes with the
// activations. Signed operands of 8 bits, psums of 32.

`default_nettype none

module variants #(
    parameter int ROWS      = 4,
    parameter int COLS      = 3,
    parameter int HOP_DOWN  = 1,
    parameter int HOP_RIGHT = 1,
    parameter int LATENCY   = 0,
    parameter bit HELD      = 1'b0
) (
    input wire              clk,
    input wire              reset,
    input wire [8*ROWS-1:0] west_activation,
    input wire [ROWS-1:0]   west_shift,
    input wire [ROWS-1:0]   west_swap,
    input wire [ROWS-1:0]   west_valid,
    input wire [8*COLS-1:0] north_weight,
    output wire [32*ROWS*COLS-1:0] psums  // PE (r, c) in [32*(r*COLS+c) +: 32]
);
    for (genvar r = 0; r < ROWS; r++) begin : row
        for (genvar c = 0; c < COLS; c++) begin : col
            // Arriving, and on their way to the next PE.
            wire [10:0] west, east;
            wire [39:0] north, south;

            if (c == 0) begin : first_col
                assign west = {west_valid[r], west_shift[r], west_swap[r], west_activation[8*r+:8]};
            end else begin : later_col
                assign west = row[r].col[c-1].east;
            end
            if (r == 0) begin : first_row
                assign north = {north_weight[8*c+:8], 32'd0};
            end else begin : later_row
                assign north = row[r-1].col[c].south;
            end

            wire        valid, shift, swap;
            wire [7:0]  activation, arriving_weight;
            wire [31:0] arriving_psum;
            assign {valid, shift, swap, activation} = west;
            assign {arriving_weight, arriving_psum} = north;

            logic [7:0]  weight, next_weight, weight_pass;
            logic [31:0] psum;
            logic        valid_q;

            wire [7:0]  used = swap ? next_weight : weight;
            wire [31:0] sum = arriving_psum + {{24{activation[7]}}, activation} * {{24{used[7]}}, used};
            wire [31:0] put_out = HELD && !valid ? psum : sum;
            wire [7:0]  passed = shift ? next_weight : weight_pass;

            always_ff @(posedge clk) begin
                if (reset) begin
                    {weight, next_weight, weight_pass, psum, valid_q} <= '0;
                end else begin
                    weight      <= used;
                    weight_pass <= passed;
                    if (shift) next_weight <= arriving_weight;
                    psum    <= put_out;
                    valid_q <= valid;
                end
            end

            delay #(.WIDTH(11), .DEPTH(HOP_RIGHT)) right (.clk, .reset, .in(west), .out(east));
            delay #(.WIDTH(40), .DEPTH(HOP_DOWN)) down (.clk, .reset, .in({passed, put_out}), .out(south));

            // What a bench looks at.
            wire [31:0] psum_q;
            wire        psum_valid;
            delay #(.WIDTH(33), .DEPTH(LATENCY)) look (
                .clk,
                .reset,
                .in ({valid_q, psum}),
                .out({psum_valid, psum_q})
            );
            assign psums[32*(r*COLS+c)+:32] = psum_q;
            wire unused = &{1'b0, psum_valid};
            if (c == COLS - 1) begin : last_col
                wire unused_east = &{1'b0, east};
            end
            if (r == ROWS - 1) begin : last_row
                wire unused_south = &{1'b0, south};
            end
        end
    end
endmodule

// Drives it from files of port values, a line each cycle, as `$readmemh` reads them; dumps all signals.
module variants_bench #(
    parameter int ROWS      = 4,
    parameter int COLS      = 3,
    parameter int HOP_DOWN  = 1,
    parameter int HOP_RIGHT = 1,
    parameter int LATENCY   = 0,
    parameter bit HELD      = 1'b0,
    parameter int LINES     = 1
);
    logic [8*ROWS-1:0] activation[0:LINES-1];
    logic [ROWS-1:0]   shift     [0:LINES-1];
    logic [ROWS-1:0]   swap      [0:LINES-1];
    logic [ROWS-1:0]   valid     [0:LINES-1];
    logic [8*COLS-1:0] weight    [0:LINES-1];
    logic clk = 1'b0, reset = 1'b1;
    int   t = 0;
    wire  [32*ROWS*COLS-1:0] psums;

    variants #(
        .ROWS     (ROWS),
        .COLS     (COLS),
        .HOP_DOWN (HOP_DOWN),
        .HOP_RIGHT(HOP_RIGHT),
        .LATENCY  (LATENCY),
        .HELD     (HELD)
    ) dut (
        .clk,
        .reset,
        .west_activation(activation[t]),
        .west_shift     (shift[t]),
        .west_swap      (swap[t]),
        .west_valid     (valid[t]),
        .north_weight   (weight[t]),
        .psums
    );

    wire unused = &{1'b0, psums, t};

    initial begin
        $readmemh("activation.mem", activation);
        $readmemh("shift.mem", shift);
        $readmemh("swap.mem", swap);
        $readmemh("valid.mem", valid);
        $readmemh("weight.mem", weight);
        $dumpfile("variants.vcd");
        $dumpvars(0, variants_bench);
        #5 clk = 1'b1;
        #5 clk = 1'b0;
        reset = 1'b0;
        for (int line = 0; line < LINES; line++) begin
            t = line;
            #5 clk = 1'b1;
            #5 clk = 1'b0;
        end
        $finish;
    end
endmodule

`default_nettype wire
