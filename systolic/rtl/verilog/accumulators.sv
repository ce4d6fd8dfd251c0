// The int32 sums below the array: ACC_ROWS per column in two halves, adding up the k tiles.
//
// A write command is given in local time, on the cycle a row of x enters the array. The row's psum
// has gone through ROWS PEs, and one cycle more per column, before it stands at the bottom; the
// command goes the same way and takes it on the edge after. So the sum of local time tau is
// written at column c on the edge of cycle tau + ROWS + c.
//
// Sums wrap modulo 2^32. The memory has no reset: a chunk's first k tile overwrites what stands.
//
// The read port answers in the same cycle with a row of a half, a sum for each column.

`default_nettype none

module accumulators #(
    parameter int ROWS     = 4,
    parameter int COLS     = 4,
    parameter int ACC_ROWS = 16
) (
    input  wire               clk,
    input  wire               reset,
    // The command: write row write_row of half write_half, in the first write_cols columns.
    input  wire               write,
    input  wire [15:0]        write_row,
    input  wire [15:0]        write_cols,
    input  wire               write_half,
    input  wire               write_first,
    input  wire [32*COLS-1:0] psum,
    // Read port.
    input  wire [15:0]        read_row,
    input  wire               read_half,
    output wire [32*COLS-1:0] read_sums,
    // On this cycle's edge the last column is served.
    output wire               last_column
);
    localparam int HALF_ROWS = ACC_ROWS / 2;
    localparam int BITS = $clog2(ACC_ROWS);
    localparam int COMMAND = 35;

    wire [31:0] read_at = 32'(read_row) + (read_half ? HALF_ROWS : 0);
    wire [BITS-1:0] read_address = read_at[BITS-1:0];
    wire unused_bits = &{1'b0, read_at};

    wire [COMMAND-1:0] entering = {write, write_half, write_first, write_cols, write_row};
    wire [COMMAND-1:0] at_bottom;

    delay #(
        .WIDTH(COMMAND),
        .DEPTH(ROWS)
    ) through_rows (
        .clk,
        .reset,
        .in (entering),
        .out(at_bottom)
    );

    for (genvar c = 0; c < COLS; c++) begin : col
        wire [COMMAND-1:0] command;

        if (c == 0) begin : first_col
            assign command = at_bottom;
        end else begin : later_col
            delay #(
                .WIDTH(COMMAND),
                .DEPTH(1)
            ) to_next_col (
                .clk,
                .reset,
                .in (col[c-1].command),
                .out(command)
            );
        end

        wire        valid, half, first;
        wire [15:0] cols, row;
        assign {valid, half, first, cols, row} = command;

        // A short tile's unused columns are left alone.
        wire taken = valid && c < 32'(cols);

        logic [31:0] sums[ACC_ROWS];
        wire [31:0] at = 32'(row) + (half ? HALF_ROWS : 0);
        wire [BITS-1:0] address = at[BITS-1:0];
        wire unused = &{1'b0, at};

        assign read_sums[32*c+:32] = sums[read_address];

        always_ff @(posedge clk) begin
            if (taken && !reset) begin
                sums[address] <= psum[32*c+:32] + (first ? 32'd0 : sums[address]);
            end
        end
    end

    assign last_column = col[COLS-1].valid;
endmodule

`default_nettype wire
