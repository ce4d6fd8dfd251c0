// Turns fold descriptors into beats of an output-stationary array: when to swap, when to drain, which
// column of x and row of w to read, and where below the array the sums go. All in local time, as
// fold_controller.sv.
//
// A fold streams k columns of x and k rows of w, its first ones with a swap. Another swap ends it,
// with zeros or with the first operands of the next fold, and ROWS - 1 drain beats follow:
//
//   double buffered:   begins_{i+1} = ends_i       (or when the descriptor comes, if later, and no
//                                                   sooner than ends_i + ROWS then)
//                      ends_i       = max(begins_i + k_i, ends_{i-1} + ROWS)
//   else:              begins_{i+1} = ends_i + 2 ROWS + COLS - 2        (the array is drained)

`default_nettype none

module output_controller #(
    parameter int ROWS            = 4,
    parameter int COLS            = 4,
    parameter bit DOUBLE_BUFFERED = 1'b1
) (
    input  wire         clk,
    input  wire         reset,
    // The next fold: taken on a cycle with fold_valid and fold_ready, on which its operands begin.
    input  wire         fold_valid,
    output wire         fold_ready,
    input  wire  [15:0] fold_m,          // rows of the array in use
    input  wire  [15:0] fold_k,          // operands of each PE, at least 1
    input  wire  [15:0] fold_n,          // columns in use
    input  wire  [15:0] fold_x_address,  // where the first column of x stands
    input  wire  [15:0] fold_w_address,  // where the first row of w stands
    input  wire         fold_half,       // half of the memory below
    // To the ports.
    output wire         swap,
    output wire         drain,
    output wire         read,
    output wire  [15:0] x_address,
    output wire  [15:0] x_rows,
    output wire  [15:0] w_address,
    output wire  [15:0] w_cols,
    // To the memory below: the sum that stands at the bottom of column 0 ROWS - 1 cycles later.
    output wire         write,
    output wire  [15:0] write_row,
    output wire  [15:0] write_cols,
    output wire         write_half,
    // A sum is being taken from the last column.
    input  wire         last_column,
    // Edges done since reset, and how many of them it took until the last sum so far stood.
    output logic [31:0] cycle,
    output logic [31:0] cycles
);
    localparam logic [15:0] LAST_ROW = 16'(ROWS - 1);
    localparam logic [15:0] REST     = 16'(2 * ROWS + COLS - 3);

    // The fold whose operands stream, or wait for the swap that ends it.
    logic        open;
    logic [15:0] left, beat;
    logic [15:0] open_m, open_n, open_x_address, open_w_address;
    logic        open_half;

    // The fold whose sums drain, drain beats left, and cycles until the last sum has left the array.
    logic [15:0] drain_left, out_m, out_n;
    logic        out_half;
    logic [15:0] rest_left;

    // A swap would take the place of sums that still drain.
    wire ends = open && left == 16'd0 && drain_left == 16'd0;

    assign fold_ready = DOUBLE_BUFFERED ? ends || (!open && drain_left == 16'd0)
                                        : !open && rest_left == 16'd0;
    wire accept = fold_valid && fold_ready;

    assign swap  = accept || ends;
    assign drain = drain_left != 16'd0;

    // Operands: the first ones with the swap, from the fold that becomes the open one on this edge.
    wire [15:0] now = accept ? 16'd0 : beat;
    assign read      = accept || (open && left != 16'd0);
    assign x_address = (accept ? fold_x_address : open_x_address) + now;
    assign w_address = (accept ? fold_w_address : open_w_address) + now;
    assign x_rows    = accept ? fold_m : open_m;
    assign w_cols    = accept ? fold_n : open_n;

    // Sums leave from the swap that ends a fold on, the last row's first. Rows beyond m hold none.
    assign write_row  = ends ? LAST_ROW : drain_left - 16'd1;
    assign write      = (ends || drain) && write_row < (ends ? open_m : out_m);
    assign write_cols = ends ? open_n : out_n;
    assign write_half = ends ? open_half : out_half;

    always_ff @(posedge clk) begin
        if (reset) begin
            open           <= 1'b0;
            left           <= 16'd0;
            beat           <= 16'd0;
            open_m         <= 16'd0;
            open_n         <= 16'd0;
            open_x_address <= 16'd0;
            open_w_address <= 16'd0;
            open_half      <= 1'b0;
            drain_left     <= 16'd0;
            out_m          <= 16'd0;
            out_n          <= 16'd0;
            out_half       <= 1'b0;
            rest_left      <= 16'd0;
            cycle          <= 32'd0;
            cycles         <= 32'd0;
        end else begin
            if (accept) begin
                open           <= 1'b1;
                open_m         <= fold_m;
                open_n         <= fold_n;
                open_x_address <= fold_x_address;
                open_w_address <= fold_w_address;
                open_half      <= fold_half;
                left           <= fold_k - 16'd1;
                beat           <= 16'd1;
            end else if (ends) begin
                open <= 1'b0;
            end else if (read) begin
                left <= left - 16'd1;
                beat <= beat + 16'd1;
            end

            if (ends) begin
                out_m      <= open_m;
                out_n      <= open_n;
                out_half   <= open_half;
                drain_left <= LAST_ROW;
                rest_left  <= REST;
            end else begin
                if (drain) drain_left <= drain_left - 16'd1;
                if (rest_left != 16'd0) rest_left <= rest_left - 16'd1;
            end

            cycle <= cycle + 32'd1;
            // A sum taken on the edge of this cycle stood after the edge before: that many edges.
            if (last_column) cycles <= cycle;
        end
    end
endmodule

`default_nettype wire
