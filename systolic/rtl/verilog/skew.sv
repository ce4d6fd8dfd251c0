// From local time to port time: lane p leaves p cycles after it entered.
//
// In local time the array is not skewed at all: what stands on all lanes on one cycle belongs
// together. Lane 0 passes straight through, so that local time 0 is cycle 0.

`default_nettype none

module skew #(
    parameter int LANES = 4,
    parameter int WIDTH = 8
) (
    input  wire                   clk,
    input  wire                   reset,
    input  wire [LANES*WIDTH-1:0] local_time,
    output wire [LANES*WIDTH-1:0] port_time
);
    for (genvar p = 0; p < LANES; p++) begin : lane
        delay #(
            .WIDTH(WIDTH),
            .DEPTH(p)
        ) delay (
            .clk,
            .reset,
            .in (local_time[p*WIDTH+:WIDTH]),
            .out(port_time[p*WIDTH+:WIDTH])
        );
    end
endmodule

`default_nettype wire
