// Replays what `systolic vectors` wrote on an array, and compares the sums that leave at its bottom.
//
// Plain Verilog, no Python: +vectors=FOLDER names the folder, ROWS, COLS, the signs and LINES are in
// its manifest.json. Define OUTPUT_STATIONARY for vectors of such an array. Prints PASS, or what differs
// and FAIL, with an exit status that is not 0. +vcd=FILE dumps all signals. Line t of each file is on the
// ports while clk rises at time 10 t + 15.

`timescale 1ns / 1ns
`default_nettype none

`ifdef OUTPUT_STATIONARY
`define CONTROL "drain"
`define SUM "out"
`else
`define CONTROL "shift"
`define SUM "psum"
`endif

module replay #(
    parameter int ROWS              = 2,
    parameter int COLS              = 3,
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1,
    parameter int LINES             = 1
);
    logic [8*ROWS-1:0]  west_activation[0:LINES-1];
    logic [ROWS-1:0]    west_control[0:LINES-1];  // shift or drain
    logic [ROWS-1:0]    west_swap[0:LINES-1];
    logic [8*COLS-1:0]  north_weight[0:LINES-1];
    logic [32*COLS-1:0] north_sum[0:LINES-1];
    logic [32*COLS-1:0] bottom_sum[0:LINES-1];

    logic clk = 1'b0;
    logic reset = 1'b1;
    int   t = 0;
    wire  [32*COLS-1:0] south_sum;

`ifdef OUTPUT_STATIONARY
    output_array #(
        .ROWS             (ROWS),
        .COLS             (COLS),
        .ACTIVATION_SIGNED(ACTIVATION_SIGNED),
        .WEIGHT_SIGNED    (WEIGHT_SIGNED)
    ) array (
        .clk,
        .reset,
        .west_activation(west_activation[t]),
        .west_swap      (west_swap[t]),
        .west_drain     (west_control[t]),
        .north_weight   (north_weight[t]),
        .north_out      (north_sum[t]),
        .south_out      (south_sum)
    );
`else
    systolic_array #(
        .ROWS             (ROWS),
        .COLS             (COLS),
        .ACTIVATION_SIGNED(ACTIVATION_SIGNED),
        .WEIGHT_SIGNED    (WEIGHT_SIGNED)
    ) array (
        .clk,
        .reset,
        .west_activation(west_activation[t]),
        .west_shift     (west_control[t]),
        .west_swap      (west_swap[t]),
        .north_weight   (north_weight[t]),
        .north_psum     (north_sum[t]),
        .south_psum     (south_sum)
    );
`endif

    string folder, file;
    int    wrong = 0;

    initial begin
        if ($value$plusargs("vectors=%s", folder) == 0) $fatal(1, "where are the vectors? +vectors=FOLDER");
        $readmemh({folder, "/west_activation.mem"}, west_activation);
        $readmemh({folder, "/west_", `CONTROL, ".mem"}, west_control);
        $readmemh({folder, "/west_swap.mem"}, west_swap);
        $readmemh({folder, "/north_weight.mem"}, north_weight);
        $readmemh({folder, "/north_", `SUM, ".mem"}, north_sum);
        $readmemh({folder, "/bottom_", `SUM, ".mem"}, bottom_sum);
        if ($value$plusargs("vcd=%s", file) != 0) begin
            $dumpfile(file);
            $dumpvars(0, replay);
        end

        // One clock in reset, then one per line. Between edges the clock is low: there the ports
        // change, and what the edge before has left is compared.
        #5 clk = 1'b1;
        #5 clk = 1'b0;
        reset = 1'b0;
        for (int line = 0; line < LINES; line++) begin
            t = line;
            if (^{
                west_activation[t], west_control[t], west_swap[t], north_weight[t], north_sum[t], bottom_sum[t]
            } === 1'bx) begin
                $display("line %0d of the vectors is missing or no number\nFAIL", t);
                $fatal(1);
            end
            #5 clk = 1'b1;
            #5 clk = 1'b0;
            for (int c = 0; c < COLS; c++) begin
                if (south_sum[32*c+:32] !== bottom_sum[t][32*c+:32]) begin
                    wrong++;
                    if (wrong <= 10)
                        $display("column %0d after the edge of cycle %0d: %s %0d, expected %0d", c, t, `SUM,
                                 $signed(south_sum[32*c+:32]), $signed(bottom_sum[t][32*c+:32]));
                end
            end
        end
        if (wrong != 0) begin
            $display("%0d of %0d sums differ\nFAIL", wrong, LINES * COLS);
            $fatal(1);
        end
        $display("%0d sums compared\nPASS", LINES * COLS);
        $finish;
    end
endmodule

`default_nettype wire
