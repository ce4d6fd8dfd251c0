// Turns fold descriptors into beats: when to shift, when to swap, which row of w and of x to read,
// and where below the array the sums go. All in local time: what it says on cycle t is meant for
// PE (0, 0) on cycle t; skew.sv and accumulators.sv bring it to the others in time.
//
// A fold is one weight tile's stay: ROWS shift beats (bottom row first, so that each weight ends
// in its row), then the swap together with the first of m rows of x.
//
//   double buffered:   swap_i      = max(shift_i + ROWS, swap_{i-1} + m_{i-1})
//                      shift_{i+1} = swap_i           (or when the descriptor comes, if later)
//   else:              shift_{i+1} = swap_i + m_i + ROWS + COLS - 2       (the array is drained)
//
// Nothing here computes these times: they follow from two small machines that wait for each other.
// The shift side holds the next fold (next_*), the stream side the current one (stream_*).

`default_nettype none

module fold_controller #(
    parameter int ROWS            = 4,
    parameter int COLS            = 4,
    parameter bit DOUBLE_BUFFERED = 1'b1
) (
    input  wire         clk,
    input  wire         reset,
    // The next fold: taken on a cycle with fold_valid and fold_ready, which is its first shift beat.
    input  wire         fold_valid,
    output wire         fold_ready,
    input  wire  [15:0] fold_m,          // rows of x, at least 1
    input  wire  [15:0] fold_k,          // rows of the array in use
    input  wire  [15:0] fold_n,          // columns in use
    input  wire  [15:0] fold_x_address,  // where its first row of x stands
    input  wire  [15:0] fold_w_address,  // where the tile's row 0 stands
    input  wire         fold_half,       // half of the accumulators
    input  wire         fold_first,      // the chunk's first k tile: overwrite, do not add
    // To the weight ports. w_read is 0 where a short tile has no row: zeros are shifted in.
    output wire         shift,
    output wire         w_read,
    output wire  [15:0] w_address,
    output wire  [15:0] w_cols,
    // To the activation ports, and, as a write command, to the accumulators.
    output wire         swap,
    output wire         x_read,
    output wire  [15:0] x_address,
    output wire  [15:0] x_rows,
    output wire  [15:0] write_row,
    output wire  [15:0] write_cols,
    output wire         write_half,
    output wire         write_first,
    // A psum is being taken from the last column.
    input  wire         last_column,
    // Edges done since reset, and how many of them it took until the last psum so far stood.
    output logic [31:0] cycle,
    output logic [31:0] cycles
);
    localparam logic [15:0] LAST_ROW = 16'(ROWS - 1);
    localparam logic [15:0] BEATS    = 16'(ROWS);
    localparam logic [15:0] DRAIN    = 16'(ROWS + COLS - 2);

    // Shift side: the tile on its way into next_weight, or standing there until its swap.
    logic        next_valid;
    logic [15:0] shift_beat;  // beats done
    logic [15:0] next_m, next_k, next_n, next_x_address, next_w_address;
    logic        next_half, next_first;

    // Stream side: the fold whose weights are in use.
    logic [15:0] stream_left, stream_row;
    logic [15:0] stream_k, stream_n, stream_x_address;
    logic        stream_half, stream_first;

    // Cycles until the last row streamed has left the array.
    logic [15:0] drain_left;

    // The swap waits for the tile to be complete and for the stream before to end.
    assign swap = next_valid && shift_beat == BEATS && stream_left == 16'd0;

    // next_weight is free from the swap on: the next tile's first beat may stand on the same edge,
    // where each PE's weight takes the old next_weight as the new one comes in.
    assign fold_ready = DOUBLE_BUFFERED ? !next_valid || swap
                                        : !next_valid && stream_left == 16'd0 && drain_left == 16'd0;
    wire accept = fold_valid && fold_ready;

    // Weights: beat b brings row ROWS-1-b.
    wire [15:0] beat  = accept ? 16'd0 : shift_beat;
    wire [15:0] w_row = LAST_ROW - beat;
    assign shift     = accept || (next_valid && shift_beat != BEATS);
    assign w_read    = shift && w_row < (accept ? fold_k : next_k);
    assign w_address = (accept ? fold_w_address : next_w_address) + w_row;
    assign w_cols    = accept ? fold_n : next_n;

    // Activations: row 0 with the swap, from the fold that becomes the current one on this edge.
    wire [15:0] row = swap ? 16'd0 : stream_row;
    wire [15:0] left = swap ? next_m : stream_left;
    assign x_read      = swap || stream_left != 16'd0;
    assign x_address   = (swap ? next_x_address : stream_x_address) + row;
    assign x_rows      = swap ? next_k : stream_k;
    assign write_row   = row;
    assign write_cols  = swap ? next_n : stream_n;
    assign write_half  = swap ? next_half : stream_half;
    assign write_first = swap ? next_first : stream_first;

    always_ff @(posedge clk) begin
        if (reset) begin
            next_valid       <= 1'b0;
            shift_beat       <= 16'd0;
            next_m           <= 16'd0;
            next_k           <= 16'd0;
            next_n           <= 16'd0;
            next_x_address   <= 16'd0;
            next_w_address   <= 16'd0;
            next_half        <= 1'b0;
            next_first       <= 1'b0;
            stream_left      <= 16'd0;
            stream_row       <= 16'd0;
            stream_k         <= 16'd0;
            stream_n         <= 16'd0;
            stream_x_address <= 16'd0;
            stream_half      <= 1'b0;
            stream_first     <= 1'b0;
            drain_left       <= 16'd0;
            cycle            <= 32'd0;
            cycles           <= 32'd0;
        end else begin
            if (accept) begin
                next_valid     <= 1'b1;
                shift_beat     <= 16'd1;
                next_m         <= fold_m;
                next_k         <= fold_k;
                next_n         <= fold_n;
                next_x_address <= fold_x_address;
                next_w_address <= fold_w_address;
                next_half      <= fold_half;
                next_first     <= fold_first;
            end else begin
                if (swap) next_valid <= 1'b0;
                if (shift) shift_beat <= shift_beat + 16'd1;
            end

            if (swap) begin
                stream_k         <= next_k;
                stream_n         <= next_n;
                stream_x_address <= next_x_address;
                stream_half      <= next_half;
                stream_first     <= next_first;
            end
            if (x_read) begin
                stream_left <= left - 16'd1;
                stream_row  <= row + 16'd1;
            end

            if (x_read && left == 16'd1) drain_left <= DRAIN;
            else if (drain_left != 16'd0) drain_left <= drain_left - 16'd1;

            cycle <= cycle + 32'd1;
            // A psum taken on the edge of this cycle stood after the edge before: that many edges.
            if (last_column) cycles <= cycle;
        end
    end
endmodule

`default_nettype wire
