// Runs a product on systolic_top and compares it with the emulator: the sums at the bottom of the array
// after every clock edge, the cycles taken, and the accumulators in the end.
//
// +product=FOLDER and +vectors=FOLDER name the folders of its files (default: product, vectors), which
// README.md describes; the sizes below are those of the files. Prints PASS, or the first sums that differ
// and FAIL, with an exit status that is not 0. +vcd=FILE dumps all signals.

`timescale 1ns / 1ns
`default_nettype none

module systolic_tb #(
    parameter int ROWS     = 4,
    parameter int COLS     = 4,
    parameter int ACC_ROWS = 16,
    // Words of the memories of x and w, folds, cycles of the product, and one more for the last write.
    parameter int X_WORDS  = 1,
    parameter int W_WORDS  = 1,
    parameter int FOLDS    = 1,
    parameter int CYCLES   = 1
);
    localparam int LINES = CYCLES + 1;
    localparam int HALF_ROWS = ACC_ROWS / 2;

    logic [8*ROWS-1:0]  x_memory[0:X_WORDS-1];
    logic [8*COLS-1:0]  w_memory[0:W_WORDS-1];
    logic [95:0]        folds[0:FOLDS-1];
    logic [32*COLS-1:0] bottom[0:LINES-1];
    logic [32*COLS-1:0] sums[0:ACC_ROWS-1];
    logic [COLS-1:0]    written[0:ACC_ROWS-1];

    logic        clk = 1'b0;
    logic        reset = 1'b1;
    logic [15:0] read_row = 16'd0;
    logic        read_half = 1'b0;
    wire         fold_ready;
    wire  [15:0] x_address, w_address;
    wire  [32*COLS-1:0] read_sums, bottom_sums;
    wire  [31:0] cycle, cycles;

    // All folds wait from the start; each is taken when the unit is ready for it.
    int          taken = 0;
    wire         fold_valid = taken < FOLDS;
    wire  [15:0] fold_m, fold_k, fold_n, fold_x_address, fold_w_address;
    wire  [13:0] padding;
    wire         fold_half, fold_first;
    assign {fold_m, fold_k, fold_n, fold_x_address, fold_w_address, padding, fold_half, fold_first} =
        folds[fold_valid ? taken : 0];

    always_ff @(posedge clk) if (!reset && fold_valid && fold_ready) taken <= taken + 1;

    systolic_top dut (
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
        .fold_first,
        .x_address,
        .x_data(x_memory[32'(x_address) < X_WORDS ? 32'(x_address) : 0]),
        .w_address,
        .w_data(w_memory[32'(w_address) < W_WORDS ? 32'(w_address) : 0]),
        .read_row,
        .read_half,
        .read_sums,
        .bottom_sums,
        .cycle,
        .cycles
    );

    string product, vectors, file;
    int    compared = 0;
    int    wrong = 0;

    task automatic compare(string place, int index, int c, logic [31:0] actual, logic [31:0] expected);
        compared++;
        if (actual !== expected) begin
            wrong++;
            if (wrong <= 10)
                $display("column %0d %s %0d: sum %0d, expected %0d", c, place, index, $signed(actual),
                         $signed(expected));
        end
    endtask

    initial begin
        if ($value$plusargs("product=%s", product) == 0) product = "product";
        if ($value$plusargs("vectors=%s", vectors) == 0) vectors = "vectors";
        $readmemh({product, "/x.mem"}, x_memory);
        $readmemh({product, "/w.mem"}, w_memory);
        $readmemh({product, "/folds.mem"}, folds);
        $readmemh({product, "/sums.mem"}, sums);
        $readmemh({product, "/written.mem"}, written);
        $readmemh({vectors, "/bottom_psum.mem"}, bottom);
        if ($value$plusargs("vcd=%s", file) != 0) begin
            $dumpfile(file);
            $dumpvars(0, systolic_tb);
        end

        // One clock in reset, then one per line. Between edges the clock is low: there the inputs
        // change, and what the edge before has left is compared.
        #5 clk = 1'b1;
        #5 clk = 1'b0;
        reset = 1'b0;
        for (int t = 0; t < LINES; t++) begin
            #5 clk = 1'b1;
            #5 clk = 1'b0;
            for (int c = 0; c < COLS; c++)
                compare("after the edge of cycle", t, c, bottom_sums[32*c+:32], bottom[t][32*c+:32]);
        end

        for (int i = 0; i < ACC_ROWS; i++) begin
            read_half = i >= HALF_ROWS;
            read_row  = 16'(i - (i >= HALF_ROWS ? HALF_ROWS : 0));
            #5;
            for (int c = 0; c < COLS; c++)
                if (written[i][c] !== 1'b0)
                    compare("of accumulator row", i, c, read_sums[32*c+:32], sums[i][32*c+:32]);
        end

        if (taken != FOLDS) begin
            wrong++;
            $display("%0d of %0d folds were taken", taken, FOLDS);
        end
        if (cycles !== CYCLES) begin
            wrong++;
            $display("%0d cycles counted, expected %0d", cycles, CYCLES);
        end
        if (wrong != 0) begin
            $display("%0d differences in %0d sums\nFAIL", wrong, compared);
            $fatal(1);
        end
        $display("%0d sums compared, %0d cycles, %0d folds\nPASS", compared, CYCLES, FOLDS);
        $finish;
    end

    wire unused = &{1'b0, padding, cycle};
endmodule

`default_nettype wire
