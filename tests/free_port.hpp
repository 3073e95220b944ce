// For programs of a test that talk to each other.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>

namespace dynvit::test {

/// A port of this machine that nobody listens on now.
inline std::uint16_t free_port() {
    const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    const bool found = ::bind(descriptor, any, length) == 0 && ::getsockname(descriptor, any, &length) == 0;
    ::close(descriptor);
    EXPECT_TRUE(found) << "no port is free";
    return ntohs(address.sin_port);
}

}  // namespace dynvit::test
