// Bound into output_unit: at every clock edge, writes in binary what stands before the edge.
//
// One record per edge, in 32-bit little-endian words (twin.py reads them):
//   the controller's registers and what it says on this cycle, as listed below;
//   per column of accumulators, the write command that reaches it; then, column by column, all sums;
//   per west port, then per north port: what stands on it;
//   per PE, row by row: {weight, activation}, acc, out, out_pass, {drain, swap}.

`default_nettype none

module output_monitor #(
    parameter int ROWS = 4,
    parameter int COLS = 4
) (
    input wire clk
);
    localparam int ACC_ROWS = 2 * ROWS;

    integer file;
    string  path;

    initial begin
        if ($value$plusargs("dump=%s", path) == 0) path = "dump.bin";
        file = $fopen(path, "wb");
        if (file == 0) $fatal(1, "cannot write %s", path);
    end

    logic [32*22-1:0]       state;
    logic [32*COLS-1:0]     commands;
    logic [32*ACC_ROWS-1:0] sums[COLS];
    logic [32*ROWS-1:0]     west;
    logic [64*COLS-1:0]     north;
    logic [160*COLS-1:0]    image[ROWS];

    // Taken on the rising edge, as any register takes what stands before it; written on the
    // falling edge.

    for (genvar r = 0; r < ROWS; r++) begin : each_row
        always_ff @(posedge clk) west[32*r+:32] <= {
            8'd0, 7'd0, output_unit.west_drain[r], 7'd0, output_unit.west_swap[r], output_unit.west_activation[8*r+:8]
        };
        for (genvar c = 0; c < COLS; c++) begin : each_col
            always_ff @(posedge clk) image[r][160*c+:160] <= {
                16'd0,
                7'd0,
                array.row[r].col[c].pe.drain,
                7'd0,
                array.row[r].col[c].pe.swap,
                array.row[r].col[c].pe.out_pass,
                array.row[r].col[c].pe.out,
                array.row[r].col[c].pe.acc,
                16'd0,
                array.row[r].col[c].pe.weight,
                array.row[r].col[c].pe.activation
            };
        end
    end
    for (genvar c = 0; c < COLS; c++) begin : each_column
        always_ff @(posedge clk) north[64*c+:64] <= {
            output_unit.north_out[32*c+:32], 24'd0, output_unit.north_weight[8*c+:8]
        };
        always_ff @(posedge clk) commands[32*c+:32] <= {
            13'd0,
            accumulators.col[c].taken,
            accumulators.col[c].half,
            accumulators.col[c].first,
            accumulators.col[c].row
        };
        for (genvar i = 0; i < ACC_ROWS; i++) begin : each_sum
            always_ff @(posedge clk) sums[c][32*i+:32] <= accumulators.col[c].sums[i];
        end
    end

    // "%u" writes the lowest word first, so the last word named here comes first.
    always_ff @(posedge clk) state <= {
        16'd0, output_unit.write_row,
        31'd0, output_unit.write,
        16'd0, output_unit.w_address,
        16'd0, output_unit.x_address,
        31'd0, output_unit.read,
        31'd0, output_unit.drain,
        31'd0, output_unit.swap,
        16'd0, controller.rest_left,
        31'd0, controller.out_half,
        16'd0, controller.out_n,
        16'd0, controller.out_m,
        16'd0, controller.drain_left,
        31'd0, controller.open_half,
        16'd0, controller.open_w_address,
        16'd0, controller.open_x_address,
        16'd0, controller.open_n,
        16'd0, controller.open_m,
        16'd0, controller.beat,
        16'd0, controller.left,
        31'd0, controller.open,
        output_unit.cycles,
        output_unit.cycle
    };

    always @(negedge clk) begin
        $fwrite(file, "%u%u", state, commands);
        for (int c = 0; c < COLS; c++) $fwrite(file, "%u", sums[c]);
        $fwrite(file, "%u%u", west, north);
        for (int r = 0; r < ROWS; r++) $fwrite(file, "%u", image[r]);
    end
endmodule

`default_nettype wire
